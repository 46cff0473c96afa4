"""The jobs: all that runs on Ray and from the shell. They are built from the model library `yolact`.

Importing it switches off the reports that libraries send home. Every process of a job imports it before them: the
driver, Ray's workers, data loaders and their children. A variable that the user has set stays as it is.
"""

from jobs.runtime.telemetry import switch_off_telemetry

switch_off_telemetry()
