"""`python -m provisioning.cli`: the same as `flightcache`."""

import sys

from provisioning.cli import main

sys.exit(main())
