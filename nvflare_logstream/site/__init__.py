"""The site's side: follows log files and sends what is written to them."""
