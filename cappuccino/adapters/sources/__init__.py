"""Where bars come from: files, and venues' history. Import the one that is needed: some load heavy clients."""
