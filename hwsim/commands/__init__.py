"""The commands of `hwsim`, one file each: they read options, call the library and print."""
