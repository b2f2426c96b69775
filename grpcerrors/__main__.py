"""`python -m grpcerrors` is the command `grpcerrors`."""

from grpcerrors.cli import main

if __name__ == "__main__":
    main()
