"""Tables and progress on the plain terminal."""
