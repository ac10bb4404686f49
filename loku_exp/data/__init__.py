"""Records of the datasets, their label masks, and the batches made of them."""
