"""`python -I -m trainpack_entrypoint [arguments for the script]`."""

import sys

from trainpack_entrypoint.main import main

main(sys.argv[1:])
