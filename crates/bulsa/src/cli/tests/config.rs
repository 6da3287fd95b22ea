use super::*;

#[tokio::test]
async fn config_prints_the_resolved_file_for_people_and_as_json() {
    let dir = project_dir();
    let ran = bulsa(&["config"], dir.path(), Path::new("/no.sock")).await;
    assert!(ran.out.starts_with("name: shop\nservices:\n  web:\n"), "{}", ran.out);
    let ran = bulsa(&["-f", "compose.yaml", "config", "--json"], dir.path(), Path::new("/no.sock")).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["services"]["web"]["command"], serde_json::json!(["node", "server.js"]));
}

#[tokio::test]
async fn config_shows_what_only_a_deploy_refuses_and_nothing_with_a_mistake() {
    let dir = project_dir();
    let config = async |services: &str| {
        fs::write(
            dir.path().join("compose.yaml"),
            format!("services:\n  web:\n    image: x\n    {services}\n"),
        )
        .unwrap();
        bulsa(&["config"], dir.path(), Path::new("/no.sock")).await
    };
    let ran = config("ports: ['53:53/udp']").await;
    assert!(
        ran.code() == 0 && ran.out.contains("udp") && ran.err.contains("carries TCP only"),
        "{}",
        ran.err
    );
    let ran = config("secrets: [key]\nsecrets: {key: {file: ./nowhere}}").await;
    assert!(ran.code() == 0 && ran.err.contains("can't read"), "{} {:?}", ran.err, ran.result);
    for mistake in ["depends_on: [nope]", "restart: sometimes", "no_such_key: 1"] {
        let ran = config(mistake).await;
        assert!(ran.code() == 1 && ran.out.is_empty(), "{mistake}: {} {:?}", ran.err, ran.result);
    }
}
