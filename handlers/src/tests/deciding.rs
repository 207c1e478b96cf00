//! A batch that fails is taken in smaller ones: the few that cannot be decided, or lose to another worker, cost the others little. On both databases.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::event::Status::Firing;
use domain::event::{Delivery, NewEvent, Sighting};
use domain::inbox::Inbox;
use domain::time::{Clock, ManualClock};
use harness::peers::Postgres;
use jiff::{SignedDuration, Timestamp};

use super::world::{Broken, RULES, World};
use crate::deciding::decide;

/// Alerts of so many incidents come at once.
const MANY: usize = 256;
/// In a few more transactions than it takes to halve them until one is left. One by one it would be as many as there are alerts.
const FEW: usize = 40;

/// Moves on whenever it is read, so that each transaction has a time of its own.
#[derive(Debug)]
struct Ticks(ManualClock);

impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        self.0.advance(SignedDuration::from_micros(1));
        self.0.now()
    }

    fn is_manual(&self) -> bool {
        true
    }
}

impl World {
    fn harmless(&self, service: &str) -> Sighting {
        let mut sighting = self.sighting(service, Firing);
        sighting.labels.insert("alertname".to_owned(), "Other".to_owned());
        sighting
    }

    /// This one comes, in the middle of many others, and is decided as far as can be without time passing.
    async fn among_many(&mut self, one: Sighting) {
        let other = "  - { match: ['alertname=\"Other\"'], incident: { group_by: [service] } }\nrunbooks:\n";
        self.reload(&RULES.replace("MODE", "approve").replace("runbooks:\n", other));
        self.cx.clock = Arc::new(Ticks(self.clock.clone()));
        let mut sightings: Vec<_> = (0..MANY).map(|n| self.harmless(&format!("s{n}"))).collect();
        sightings.insert(MANY / 3, one);
        let events = sightings.into_iter().map(|sighting| NewEvent::sighting("am", sighting)).collect();
        let delivery = Delivery { source: "am".to_owned(), events, raw: bytes::Bytes::new(), received_at: self.now() };
        self.cx.store.accept(delivery).await.unwrap();
    }

    async fn decide_all(&self) {
        while decide(&self.cx).await.unwrap() > 0 {}
    }

    /// How many incidents there are, and in how many transactions they were opened.
    async fn opened(&self) -> (usize, usize) {
        let incidents = self.incidents().await;
        let times: BTreeSet<_> = incidents.iter().map(|incident| incident.opened_at).collect();
        (incidents.len(), times.len())
    }
}

async fn one_that_cannot_be_decided_is_found_by_halves(mut world: World) {
    let poison = world.sighting("api", Firing);
    world.among_many(poison).await;
    let broken = Arc::new(Broken::default());
    world.cx.actions = broken.clone();
    world.decide_all().await;
    let ((incidents, transactions), failed) = (world.opened().await, broken.looked());
    assert_eq!(incidents, MANY);
    assert!(transactions + failed <= FEW, "{transactions} transactions, and {failed} that failed");

    // From now on it fails alone, and is set aside at the fifth time.
    let letters = async || world.cx.store.read().await.unwrap().dead_letters(10).await.unwrap().len();
    for attempt in 2..=5 {
        assert_eq!(letters().await, 0);
        world.clock.advance(SignedDuration::from_secs(70));
        world.decide_all().await;
        assert_eq!(broken.looked(), failed + attempt - 1);
    }
    assert_eq!(letters().await, 1);
}

#[tokio::test]
async fn one_that_cannot_be_decided_is_found_by_halves_on_sqlite() {
    one_that_cannot_be_decided_is_found_by_halves(World::new("approve").await).await;
}

#[tokio::test]
async fn one_that_cannot_be_decided_is_found_by_halves_on_postgres() {
    one_that_cannot_be_decided_is_found_by_halves(World::on_postgres("approve").await).await;
}

/// An alert among many whose storing loses to somebody else so often: how many incidents are open when all is decided that can be, and in how many
/// transactions they were opened.
async fn loses(times: u32) -> (usize, usize) {
    let postgres = Postgres::shared().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    let mut world = World::over("approve", Some(database.clone())).await;
    // A sequence counts what is taken back, too.
    let clash = format!(
        "create sequence tries;
         create function clash() returns trigger language plpgsql as $$ begin
             if nextval('tries') <= {times} then raise exception 'somebody was faster' using errcode = '40001'; end if;
             return new;
         end $$;
         create trigger clash before insert on alerts for each row when (new.fingerprint = 'f-api') execute function clash();"
    );
    postgres.psql(&database, &clash).await.unwrap();
    let one = world.harmless("api");
    world.among_many(one).await;
    world.decide_all().await;
    world.opened().await
}

/// Not blamed for it: that would make it wait for its next attempt, and no time passes.
#[tokio::test]
async fn one_that_loses_again_and_again_is_decided_and_the_others_do_not_go_one_by_one() {
    let (incidents, transactions) = loses(20).await;
    assert_eq!(incidents, MANY + 1);
    assert!(transactions <= FEW, "{transactions} transactions");
}

#[tokio::test]
async fn one_that_always_loses_holds_up_nothing() {
    let (incidents, transactions) = loses(1_000_000).await;
    assert_eq!(incidents, MANY);
    assert!(transactions <= FEW, "{transactions} transactions");
}
