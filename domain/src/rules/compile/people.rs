//! Roles and people.

use std::collections::{BTreeMap, BTreeSet};

use super::Build;
use super::basics::is_snowflake;
use crate::permission::{People, Principal, Right};
use crate::rules::schema;
use crate::rules::tree::{Node, Pos};

/// The roles that every configuration has.
pub const BUILT_IN_ROLES: [(&str, &[Right]); 4] = [
    ("viewer", &[Right::View]),
    ("responder", &[Right::View, Right::Acknowledge, Right::Resolve, Right::Note, Right::Run]),
    ("approver", &[Right::View, Right::Note, Right::Approve]),
    ("admin", &Right::ALL),
];

impl Build<'_, '_> {
    pub(super) fn people(&mut self) -> People {
        let built_in = BUILT_IN_ROLES.into_iter().map(|(name, rights)| (name.to_owned(), rights.iter().copied().collect()));
        let mut people = People { roles: built_in.collect(), principals: BTreeMap::new() };
        for (name, node, rights) in self.map::<Vec<Right>>("roles") {
            if people.roles.contains_key(name) {
                let help = "it always means the same: choose another name".to_owned();
                self.add(node.name_at(), format!("the role `{name}` is built in"), help);
            }
            people.roles.insert(name.to_owned(), rights.into_iter().collect());
        }
        let mut taken = BTreeMap::new();
        for (name, node, written) in self.map::<schema::Principal>("principals") {
            for (index, role) in written.roles.iter().enumerate() {
                self.known_role(role, node.find(&["roles", &index.to_string()]).at);
            }
            let mut identities = Vec::new();
            for (platform, ids) in [("slack", &written.slack), ("discord", &written.discord)] {
                for (index, id) in ids.0.iter().enumerate() {
                    let at = node.find(&[platform, &index.to_string()]).at;
                    if let Some(identity) = self.identity(platform, id, at) {
                        if let Some(other) = taken.insert(identity.clone(), name) {
                            let help = "one identity is one person".to_owned();
                            self.add(at, format!("`{id}` is `{other}` already"), help);
                        }
                        identities.push(identity);
                    }
                }
            }
            let roles = written.roles.into_iter().collect();
            let human = written.human.unwrap_or(true);
            people.principals.insert(name.to_owned(), Principal { name: name.to_owned(), roles, identities, human });
        }
        people
    }

    /// Whether there is such a role; tells it if not.
    pub(super) fn known_role(&mut self, role: &str, at: Pos) -> bool {
        let mut names = self.names("roles");
        names.extend(BUILT_IN_ROLES.map(|(name, _)| name));
        if names.contains(&role) {
            return true;
        }
        self.add(at, format!("there is no role `{role}`"), crate::rules::problem::suggest(role, names, ""));
        false
    }

    /// Why nobody, or too few, could ever approve. Says who could, so that the reader sees what is short.
    pub(super) fn reachable(&mut self, people: &People, approval: &schema::Approval, node: &Node) {
        let roles: BTreeSet<String> = approval.roles.iter().cloned().collect();
        let able: Vec<&str> = people
            .approvers(&roles)
            .map(|person| person.name.as_str())
            .filter(|name| !approval.exclude.iter().any(|e| e == name))
            .collect();
        let quorum = approval.quorum.unwrap_or(1);
        if able.len() >= quorum as usize {
            return;
        }
        let named = approval.roles.join(", ");
        if people.principals.values().any(|person| person.human && !person.roles.is_disjoint(&roles)) && able.is_empty() {
            let help = format!("give a role of {named} the right `approve`, or name another one, or exclude fewer people");
            self.add(node.find(&["roles"]).at, "nobody could ever approve this: those who have the roles may not approve", help);
        } else if able.is_empty() {
            let help = format!("give somebody under `principals` one of the roles {named}");
            self.add(node.find(&["roles"]).at, "nobody could ever approve this: no person has one of the roles", help);
        } else {
            let help = format!("only {} could: lower the quorum or give more people one of the roles {named}", able.join(", "));
            self.add(node.find(&["quorum"]).at, format!("a quorum of {quorum} can never be reached"), help);
        }
    }

    fn identity(&mut self, platform: &str, id: &str, at: Pos) -> Option<(String, String, String)> {
        let upper = |text: &str| text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        let good = |workspace: &str, user: &str| match platform {
            "slack" => workspace.starts_with(['T', 'E']) && user.starts_with(['U', 'W']) && upper(workspace) && upper(user),
            _ => is_snowflake(workspace) && is_snowflake(user),
        };
        match id.split_once('/') {
            Some((workspace, user)) if good(workspace, user) => Some((platform.to_owned(), workspace.to_owned(), user.to_owned())),
            _ => {
                let (form, how) = match platform {
                    "slack" => ("TEAM/USER, such as T0123ABCD/U0456EFGH", "the user's id is in their profile under \"Copy member ID\""),
                    _ => ("GUILD/USER, two long numbers", "turn on Discord's developer mode, then right-click and copy the ids"),
                };
                self.add(at, format!("`{id}` is not of the form {form}"), how.to_owned());
                None
            }
        }
    }
}
