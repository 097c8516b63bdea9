"""A synthetic competition in the shape of the real one."""
