//! A fake of Discord.
