"""What machine and operating system give: files and locks, signals, devices, randomness, and notices about them."""
