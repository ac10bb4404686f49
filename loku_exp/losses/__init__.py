"""Token terms, the objectives made of them, and the head that scores labelled rows only."""
