"""Tables and pages of what evaluations found."""
