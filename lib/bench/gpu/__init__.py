"""`make gpu`: checks, speed and a profile of training on a CUDA card, in minutes and without what a bare machine lacks."""
