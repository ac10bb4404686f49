"""Token terms, the objectives made of them, and regularisers of an adapter."""
