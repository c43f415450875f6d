"""``python -m unprompt`` is the ``unprompt`` command."""

from unprompt.cli import main

if __name__ == "__main__":
    main(prog_name="unprompt")
