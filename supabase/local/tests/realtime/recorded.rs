//! One test for each recording, in both protocol versions.

use crate::replay::play;

/// Names a test after what the recording shows.
macro_rules! as_recorded {
    ($($name:ident: $case:literal;)*) => {
        $(
            mod $name {
                #[tokio::test]
                async fn in_version_1() {
                    super::play("1.0.0", $case).await;
                }

                #[tokio::test]
                async fn in_version_2() {
                    super::play("2.0.0", $case).await;
                }
            }
        )*
    };
}

as_recorded! {
    heartbeats_are_answered: "connect_heartbeat_close";
    a_topic_is_joined_and_left: "join_minimal_and_leave";
    a_join_is_followed_by_presence_state_and_the_verdict: "join_full_reply_system_presence";
    a_second_join_replaces_the_first_and_refs_are_echoed: "join_refs";
    wrong_types_in_a_join_are_defaults_or_refusals: "join_payload_types";
    unknown_topics_and_events_do_no_harm: "topics_unknown";
    malformed_frames_are_ignored: "malformed_frames";
    the_token_of_a_join_is_checked: "auth_join_tokens";
    a_pushed_token_changes_the_claims_or_ends_the_channel: "auth_access_token_push";
    a_token_that_runs_out_ends_its_channel_only: "auth_token_expires_live";
    rows_of_all_types_look_as_recorded: "pg_insert_update_delete_types";
    filters_choose_rows: "pg_filters";
    bad_bindings_are_refused_by_a_system_message: "pg_bad_config";
    bindings_may_name_whole_schemas: "pg_scope_and_duplicates";
    bindings_may_select_columns: "pg_select_columns";
    policies_decide_who_sees_a_row: "pg_rls_visibility";
    a_full_identity_shows_old_rows: "pg_replica_identity_full";
    missing_grants_and_keys_are_errors: "pg_errors_no_grant_no_pk";
    binary_broadcasts_reach_both_versions: "broadcast_binary";
}
