"""Training of a Deep Potential: statistics, loss, learning rate, and the loop that joins them."""
