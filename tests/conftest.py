"""What every test has in common.

No test measures time, so Hypothesis does not either: a busy machine is not a failure. In CI the
same examples are tried every time; whoever hunts for more runs with ``--hypothesis-profile=hunt``.
"""

import os

from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("hunt", deadline=None, max_examples=5000)
settings.load_profile("ci" if os.environ.get("CI") else "default")
