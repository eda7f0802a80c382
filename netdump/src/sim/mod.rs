//! A seeded, lossy link in virtual time, and models of the ends that speak over it.
