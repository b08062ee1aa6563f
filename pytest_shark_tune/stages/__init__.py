"""Old paths of public names, for one release: each module warns and stands for the one that it became."""
