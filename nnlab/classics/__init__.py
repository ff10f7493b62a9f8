"""The networks that every course begins with."""
