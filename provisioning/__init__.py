"""What flightcache does, without doit: read, compile, describe, index, sign, verify, publish."""

import os

# Nothing leaves this machine. ONNX Runtime 1.32 makes a database in HOME when it is imported and sends what it measured
# some 20 s later; `disable_telemetry_events()` prevents neither (seen with strace), so this stands before every import
# of it, in every process, and is inherited by those we start. PROJ fetches grids where a proj.ini allows it.
os.environ.update({"ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "PROJ_NETWORK": "OFF"})
