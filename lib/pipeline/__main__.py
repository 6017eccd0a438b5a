"""`python -m lib.pipeline`: see lib.pipeline.scheduler."""

from lib.pipeline.scheduler import main

if __name__ == "__main__":
    raise SystemExit(main())
