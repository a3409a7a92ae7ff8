"""What came of playing, told to a person: failures side by side, on a terminal, as a page, as XML."""
