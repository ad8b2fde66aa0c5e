"""python -m spvn APP is the same as spvn APP."""

from spvn.cli import main

if __name__ == "__main__":
    main()
