"""No test measures time, so Hypothesis does not either: a busy machine is not a failure."""

from hypothesis import settings

settings.register_profile("crypto", deadline=None)
settings.load_profile("crypto")
