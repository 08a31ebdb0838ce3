"""Set-up and check of a federation's start-up kits, from their files alone."""
