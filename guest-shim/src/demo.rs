//! The demo guest's image.
