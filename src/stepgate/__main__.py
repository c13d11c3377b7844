"""`python -m stepgate` is the command `stepgate`."""

from stepgate.cli.main import main

if __name__ == "__main__":
    main()
