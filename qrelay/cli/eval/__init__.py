"""What `qrelay eval` and its commands take and print; the work is in the modules beside this folder."""
