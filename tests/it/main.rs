//! The one integration test: every file beside this one is a module of it, so that it links once.

#[cfg(test)]
mod peers;
#[cfg(test)]
mod slack;
#[cfg(test)]
mod tidy;
