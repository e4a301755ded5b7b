"""Hypothesis without deadlines: two cores that several test runs share are no clock."""

from hypothesis import settings

settings.register_profile("labfleet", deadline=None)
settings.load_profile("labfleet")
