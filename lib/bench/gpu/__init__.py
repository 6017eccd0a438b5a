"""`make gpu`: what a machine with one card is asked in minutes; see `lib.bench.gpu.__main__`."""
