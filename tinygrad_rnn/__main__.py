"""``python -m tinygrad_rnn``."""

import sys

if __name__ == "__main__":
    try:
        from .cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # while the modules were loaded
        sys.exit(130)
