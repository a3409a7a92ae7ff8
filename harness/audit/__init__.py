"""What would a script not notice? It is played again for each thing that a server could get wrong, and must fail."""
