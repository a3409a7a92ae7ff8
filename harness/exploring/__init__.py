"""The same script under many schedules: how input is cut, what a write accepts, in which order what is ready runs."""
