"""Numbers only: how far an update is from the reference's, of which steps it is, what that means."""
