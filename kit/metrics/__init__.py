"""Average precision and how far it can be trusted. Pure."""
