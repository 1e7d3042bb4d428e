"""Run the command line without an installed script."""

from siltstone.cli import main

if __name__ == "__main__":
    main()
