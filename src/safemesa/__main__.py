"""`python -m safemesa`: the command line of this interpreter's installation."""

import sys

from safemesa.cli.main import main

sys.exit(main())
