"""The engine: signals compiled to SQL over days, from declarations to values."""
