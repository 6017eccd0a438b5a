"""One file a paper: the rows of its tables and how each is predicted. `lib.evaluate` measures them all alike."""
