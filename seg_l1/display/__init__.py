"""What a person sees: log, tables, pictures, TensorBoard."""
