"""Laws of a server, judged from what the clients of random traffic saw. No byte is predicted."""
