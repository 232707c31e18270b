"""What the compiler did to a model: collected, drawn as text, written as JSON."""
