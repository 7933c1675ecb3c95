//! Who may do what at a broker with the keys that `coordinator agents --new-keys` makes.
