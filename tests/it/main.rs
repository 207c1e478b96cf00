//! The one integration test: every file beside this one is a module of it, so that it links once.

#[cfg(test)]
mod agents;
#[cfg(test)]
mod agents_cancelled;
#[cfg(test)]
mod agents_cut;
#[cfg(test)]
mod agents_killed;
#[cfg(test)]
mod agents_order;
#[cfg(test)]
mod agents_roll;
#[cfg(test)]
mod agents_secured;
#[cfg(test)]
mod agents_trust;
#[cfg(test)]
mod alertmanager;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod audit_old;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod cancels;
#[cfg(test)]
mod claims;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod clicks;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod console;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod databases;
#[cfg(test)]
mod discord;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod live;
#[cfg(test)]
mod live_elsewhere;
#[cfg(test)]
mod load;
#[cfg(test)]
mod nats;
#[cfg(test)]
mod nats_away;
#[cfg(test)]
mod nats_changed;
#[cfg(test)]
mod nats_faults;
#[cfg(test)]
mod nats_kept;
#[cfg(test)]
mod nats_lost;
#[cfg(test)]
mod nats_out;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod restored;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod settled;
#[cfg(test)]
mod slack;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod sweep;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod unknown;
#[cfg(test)]
mod watched;
#[cfg(test)]
mod workers;
