"""`qrelay models versions | show | promote | …`, a file a subject. Loaded one by one when they are called."""
