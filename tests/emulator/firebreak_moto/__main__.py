"""python -m firebreak_moto -H 127.0.0.1 -p PORT: moto's server, corrected."""

from moto.server import main

from . import correct

if __name__ == "__main__":
    correct()
    main()
